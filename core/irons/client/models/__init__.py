"""What the v0 API answers, as data: one module for each part of the API.

Named tuples, each read once and leniently, by `fields`: unknown fields are ignored, missing ones and those of another type are empty.
What a request may say is a TypedDict next to what it answers. No request is made here.
"""
