// Prints what the official parser says of an AsyncAPI document, as JSON: the channels' addresses and the diagnostics.
// usage: NODE_PATH=<node_modules> node validate.cjs FILE
"use strict";

const { readFileSync } = require("node:fs");
const { Parser } = require("@asyncapi/parser");
const { AvroSchemaParser } = require("@asyncapi/avro-schema-parser");

const ERROR = 0;
const avro = AvroSchemaParser();

async function main(file) {
  const parser = new Parser();
  parser.registerSchemaParser(avro);
  const { document, diagnostics } = await parser.parse(readFileSync(file, "utf8"), { source: file });
  const channels = document ? document.channels().all().map((channel) => channel.address()) : [];
  const misfits = document ? await avroMisfits(document.json().components.messages) : [];
  process.stdout.write(JSON.stringify({ channels, diagnostics: [...diagnostics, ...misfits] }));
}

// In documents of AsyncAPI 3 the parser converts Avro schemas without asking the plugin whether they are right.
async function avroMisfits(messages) {
  const misfits = [];
  for (const [name, { payload }] of Object.entries(messages)) {
    if (!avro.getMimeTypes().includes(payload.schemaFormat)) continue;
    const path = ["components", "messages", name, "payload"];
    for (const { message } of await avro.validate({ data: payload["x-parser-original-payload"], path })) {
      misfits.push({ code: "avro-schema", severity: ERROR, message, path });
    }
  }
  return misfits;
}

main(process.argv[2]);
