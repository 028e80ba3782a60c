"""The folder of a stream: shards, what is done, who writes; part by part of the manifest."""
