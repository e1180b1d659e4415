-- The epoch in which the status of a certificate changed last, 0: when there were none,
-- or never. The bytes of a CRL where several nodes use the store; here they lie in a file,
-- and this is empty.
ALTER TABLE certificates ADD COLUMN status_epoch INTEGER NOT NULL DEFAULT 0;
CREATE INDEX certificates_status ON certificates (status_epoch) WHERE status_epoch > 0;
ALTER TABLE crls ADD COLUMN der BLOB NOT NULL DEFAULT x'';
