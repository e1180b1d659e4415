-- One use per key; the two uses of RSA share their specs.
ALTER TABLE keys ADD COLUMN key_use TEXT NOT NULL DEFAULT 'encrypt';
