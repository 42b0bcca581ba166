"""A warm process that has imported what a worker needs and forks workers (compare multiprocessing's forkserver).

`confine` drops rights before third-party code is imported and all of them before anything from outside is read.
Standard library only, until `confine` has dropped what it must.
"""
