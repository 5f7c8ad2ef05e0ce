"""What the connector is made of: licences, known weaknesses, the bill of materials."""
