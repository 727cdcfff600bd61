"""The simulated Symphony XTS: hostlookup, interactive REST, Engine.IO 3 socket and instrument master."""
