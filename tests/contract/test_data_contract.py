"""The data contract is one of the Open Data Contract Standard, and says what schemas and README say."""

import json
from importlib.resources import files
from pathlib import Path

import jsonschema
import yaml
from open_data_contract_standard.model import OpenDataContractStandard

from connector.message.routes import STREAMS
from connector.message.schemas import load
from tools import contract

FILE = Path(__file__).parents[2] / "docs" / "data-contract.yaml"


def test_the_standard_s_own_schema_takes_it():
    standard = json.loads(files("open_data_contract_standard").joinpath("schema.json").read_text(encoding="utf-8"))

    jsonschema.validate(yaml.safe_load(FILE.read_text(encoding="utf-8")), standard)


def test_the_standard_s_own_reader_finds_every_stream_with_every_field():
    read = OpenDataContractStandard.from_file(str(FILE))

    assert {one.name: [field.name for field in one.properties] for one in read.schema_} == {
        name: list(load(stream.record_type).fields) for name, stream in STREAMS.items()
    }


def test_every_guarantee_is_a_level_of_service():
    levels = {each["property"] for each in contract.contract()["slaProperties"]}

    assert levels == {"retention", "latency", "completeness", *(f"P{number}" for number in range(1, 10))}
