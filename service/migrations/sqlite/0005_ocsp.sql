-- Keys that sign OCSP answers, made in the HSM. The newest of an issuer is in use; its
-- certificate is empty until it has one. A row stays as long as its object.
CREATE TABLE responders (
    object_id    BLOB    NOT NULL PRIMARY KEY,
    issuer_id    BLOB    NOT NULL REFERENCES issuers (id),
    spec         TEXT    NOT NULL,
    proof        BLOB    NOT NULL,
    token_serial TEXT    NOT NULL,
    certificate  BLOB    NOT NULL,
    created_ms   INTEGER NOT NULL
) STRICT;

CREATE INDEX responders_issuer ON responders (issuer_id, created_ms);
