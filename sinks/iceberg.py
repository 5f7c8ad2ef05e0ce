"""How many rows the table of connect/iceberg.properties has: ``python iceberg.py``."""

from pyiceberg.catalog.sql import SqlCatalog

catalog = SqlCatalog("iceberg", uri="sqlite:////lake/catalog.db", warehouse="file:///lake/warehouse")
print(catalog.load_table("weda.events").scan(selected_fields=("fingerprint",)).to_arrow().num_rows)
