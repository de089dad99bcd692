-- Where pageservers answer HTTP over TLS. A database taken over from the peer may have it already.
ALTER TABLE nodes ADD COLUMN IF NOT EXISTS listen_https_port INTEGER;
