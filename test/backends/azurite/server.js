// Starts Azurite's Blob server for tests with the options on the command line, prints
// READY when it listens, and ends with standard input, so that it dies with its parent.
"use strict";

process.stdin.on("end", () => process.exit(0)).resume();

// Azurite tells that it listens only by a line for people, of which this is the part
// that must not change unseen: the version is pinned.
const listening = "Azurite Blob service successfully listens on ";
console.log = (...args) => {
  process.stderr.write(args.join(" ") + "\n");
  const line = String(args[0]);
  if (line.startsWith(listening)) {
    process.stdout.write("READY endpoint=" + line.slice(listening.length) + "\n");
  }
};

require("azurite/dist/src/blob/main.js");
