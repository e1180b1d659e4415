-- Authorities, what they may issue, and every certificate they made.

-- A ceremony is the youth of an issuer: one row from the plan on.
CREATE TABLE issuers (
    id             BLOB    NOT NULL PRIMARY KEY,
    tenant_id      BLOB    NOT NULL REFERENCES tenants (id),
    name           TEXT    NOT NULL,
    stage          TEXT    NOT NULL,
    text           TEXT    NOT NULL,
    object_id      BLOB    NOT NULL UNIQUE,
    spec           TEXT    NOT NULL,
    proof          BLOB    NOT NULL,
    token_serial   TEXT    NOT NULL,
    serial         BLOB    NOT NULL,
    digest         BLOB    NOT NULL,
    approvals      TEXT    NOT NULL,
    created_by     TEXT    NOT NULL,
    created_ms     INTEGER NOT NULL,
    certificate    BLOB    NOT NULL,
    chain          BLOB    NOT NULL,
    may_issue      INTEGER NOT NULL,
    may_sign_crls  INTEGER NOT NULL,
    alarm          TEXT    NOT NULL,
    revision       INTEGER NOT NULL,
    UNIQUE (tenant_id, name)
) STRICT;

CREATE TABLE profiles (
    tenant_id  BLOB    NOT NULL REFERENCES tenants (id),
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL,
    text       TEXT    NOT NULL,
    created_by TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    retired_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name, version)
) STRICT;

-- `der` is the TBSCertificate while the state is 'intended', then the certificate.
CREATE TABLE certificates (
    issuer_id       BLOB    NOT NULL REFERENCES issuers (id),
    serial          BLOB    NOT NULL,
    tenant_id       BLOB    NOT NULL,
    state           TEXT    NOT NULL,
    profile         TEXT    NOT NULL,
    profile_version INTEGER NOT NULL,
    der             BLOB    NOT NULL,
    spki_sha256     BLOB    NOT NULL,
    names           TEXT    NOT NULL,
    not_before_ms   INTEGER NOT NULL,
    not_after_ms    INTEGER NOT NULL,
    shard           INTEGER NOT NULL,
    requested_by    TEXT    NOT NULL,
    request_key     TEXT    NOT NULL,
    request_sha256  BLOB    NOT NULL,
    lineage         BLOB    NOT NULL,
    created_ms      INTEGER NOT NULL,
    revoked_ms      INTEGER NOT NULL,
    reason          INTEGER NOT NULL,
    invalidity_ms   INTEGER NOT NULL,
    PRIMARY KEY (issuer_id, serial)
) STRICT;

-- A certificate without an idempotency key has an empty one, and many may.
CREATE UNIQUE INDEX certificates_request ON certificates (tenant_id, requested_by, request_key)
    WHERE request_key <> '';
-- With the state, or a key that many certificates carry is slow to judge.
CREATE INDEX certificates_spki ON certificates (tenant_id, spki_sha256, state);
CREATE INDEX certificates_end ON certificates (tenant_id, not_after_ms, issuer_id, serial);
CREATE INDEX certificates_revoked ON certificates (issuer_id, revoked_ms)
    WHERE state = 'revoked';
CREATE INDEX certificates_intended ON certificates (issuer_id) WHERE state = 'intended';
CREATE INDEX certificates_created ON certificates (created_ms);

CREATE TABLE certificate_names (
    tenant_id BLOB NOT NULL,
    name      TEXT NOT NULL,
    issuer_id BLOB NOT NULL,
    serial    BLOB NOT NULL,
    PRIMARY KEY (tenant_id, name, issuer_id, serial)
) STRICT, WITHOUT ROWID;

CREATE TABLE blocked_keys (
    tenant_id   BLOB    NOT NULL,
    spki_sha256 BLOB    NOT NULL,
    why         TEXT    NOT NULL,
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, spki_sha256)
) STRICT;

-- The newest CRL of each issuer and shard (0: the full one). The bytes lie in a file.
CREATE TABLE crls (
    issuer_id      BLOB    NOT NULL REFERENCES issuers (id),
    shard          INTEGER NOT NULL,
    number         INTEGER NOT NULL,
    this_update_ms INTEGER NOT NULL,
    next_update_ms INTEGER NOT NULL,
    entries        INTEGER NOT NULL,
    sha256         BLOB    NOT NULL,
    PRIMARY KEY (issuer_id, shard)
) STRICT;
