"""The data doctor: what must be mended in annotation files and their clips before anything trains on them.

`doctor.check` reads the files (`rows`), probes every distinct clip in worker processes that may crash or hang (`workers`, `probe`), keeps
what it learnt of each clip (`index`), and says what is wrong (`findings`). `fingerprint` tells the same content in other files.
"""
