"""`audit watch`: outbound connections as they happen; the model is pure, the feed reads, the view draws, the app holds the keys."""
