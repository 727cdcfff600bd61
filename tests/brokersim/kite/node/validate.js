// Says what Zerodha's own client thinks of postbacks: `node validate.js secret`, one JSON body a line in, one verdict a line out.
const { createInterface } = require("node:readline");
const { KiteConnect } = require("kiteconnect");

const kite = new KiteConnect({ api_key: "demokite" });
createInterface({ input: process.stdin }).on("line", (line) => {
  let verdict;
  try {
    verdict = kite.validatePostback(JSON.parse(line), process.argv[2]);
  } catch (error) {
    verdict = error.name;
  }
  console.log(JSON.stringify(verdict));
});
