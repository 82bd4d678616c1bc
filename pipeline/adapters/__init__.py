"""One vendor, one file: Kafka, folders, files, and their stand-ins in memory."""
