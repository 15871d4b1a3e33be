"""The use cases, one verb each. They are handed their ports and find nothing by themselves."""
