"""An independent reader of both trees: what the migration promised, checked from the page that promises it.

Nothing here is shared with the code that writes the tree: names, parsing and canonical forms are made again from
docs/target.md, so that a mistake made there is not made twice.

names          path components and derived ids
jsontext       JSON texts as spans of bytes
timestamps     naive times and the offset of a zone
tree           reading directories and files below a directory descriptor
sides          both trees of a comparison, and the attic
settle         looking again while the source changes
source         what stands where in a v2 tree
comparison     findings, and the two canonical forms of an item
messages       lines of messages.jsonl and quarantine.jsonl
plain          the proof, by bytes, that a plain session or profile is equal
sessions       live and archived sessions
beside         shards, contexts and histories of a session
exact          what the way back is promised
documents      documents and their registry
profiles       user profiles
personas       persona definitions
panels         panel conversations
vectors        vector sets and their owners
extras         what stands in the target and comes from nothing
users          everything below a batch of user directories
verification   both trees, whole
report         what was found, for people and for programs
"""
