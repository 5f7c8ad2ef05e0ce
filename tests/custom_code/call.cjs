// Calls a method of WeDa's custom code as the platform does: node call.cjs METHOD.cjs < params.json
const fs = require("node:fs");

const method = require(process.argv[2]);
method(JSON.parse(fs.readFileSync(0, "utf8")), {}).then(
  (result) => process.stdout.write(JSON.stringify(result)),
  (error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  },
);
