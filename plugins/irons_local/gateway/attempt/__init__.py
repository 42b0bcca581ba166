"""One connection that a cell tried: from its first bytes to its closing record.

`attempt` keeps the order of record, judgement and dial; `account` writes what the log says of it; `context` is what all share.
No parsing of protocols here: `inspect`, `tls`, `http1` and `http2` do that.
"""
