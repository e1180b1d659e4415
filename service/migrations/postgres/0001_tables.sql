-- All tables as the embedded store has them after its own migrations, in types that
-- CockroachDB and YugabyteDB know as well. 0 is "never" wherever a time stands.

CREATE TABLE tenants (
    id              BYTEA  NOT NULL PRIMARY KEY,
    name            TEXT   NOT NULL UNIQUE
);

CREATE TABLE keys (
    id              BYTEA  NOT NULL PRIMARY KEY,
    tenant_id       BYTEA  NOT NULL REFERENCES tenants (id),
    name            TEXT   NOT NULL,
    spec            TEXT   NOT NULL,
    labels          TEXT   NOT NULL,
    primary_version BIGINT NOT NULL,
    created_ms      BIGINT NOT NULL,
    revision        BIGINT NOT NULL,
    key_use         TEXT   NOT NULL DEFAULT 'encrypt',
    rules           TEXT   NOT NULL DEFAULT '{}',
    minimum_version BIGINT NOT NULL DEFAULT 1,
    epoch           BIGINT NOT NULL DEFAULT 0,
    promoted_ms     BIGINT NOT NULL DEFAULT 0,
    promoted_epoch  BIGINT NOT NULL DEFAULT 0,
    UNIQUE (tenant_id, name)
);

CREATE INDEX keys_epoch ON keys (epoch);

CREATE TABLE key_versions (
    key_id          BYTEA  NOT NULL REFERENCES keys (id),
    number          BIGINT NOT NULL,
    state           TEXT   NOT NULL,
    object_id       BYTEA  NOT NULL UNIQUE,
    proof           BYTEA  NOT NULL,
    token_serial    TEXT   NOT NULL,
    created_ms      BIGINT NOT NULL,
    wraps_reserved  BIGINT NOT NULL,
    destroy_at_ms   BIGINT NOT NULL DEFAULT 0,
    protected_ms    BIGINT NOT NULL DEFAULT 0,
    processed_ms    BIGINT NOT NULL DEFAULT 0,
    brown_out_until_ms BIGINT NOT NULL DEFAULT 0,
    refused_ms      BIGINT NOT NULL DEFAULT 0,
    sealed_bytes    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (key_id, number)
);

-- What was about to be generated in the HSM. A row that is left over after a crash
-- names the object that may be on the token without belonging to any key.
CREATE TABLE intents (
    object_id       BYTEA  NOT NULL PRIMARY KEY,
    tenant_id       BYTEA  NOT NULL,
    key_id          BYTEA  NOT NULL,
    key_name        TEXT   NOT NULL,
    number          BIGINT NOT NULL,
    created_ms      BIGINT NOT NULL
);

-- Single facts about the appliance: genesis, canary key, audit anchor.
CREATE TABLE facts (
    name            TEXT   NOT NULL PRIMARY KEY,
    value           BYTEA  NOT NULL
);

-- Authorities, what they may issue, and every certificate they made.

-- A ceremony is the youth of an issuer: one row from the plan on.
CREATE TABLE issuers (
    id              BYTEA  NOT NULL PRIMARY KEY,
    tenant_id       BYTEA  NOT NULL REFERENCES tenants (id),
    name            TEXT   NOT NULL,
    stage           TEXT   NOT NULL,
    text            TEXT   NOT NULL,
    object_id       BYTEA  NOT NULL UNIQUE,
    spec            TEXT   NOT NULL,
    proof           BYTEA  NOT NULL,
    token_serial    TEXT   NOT NULL,
    serial          BYTEA  NOT NULL,
    digest          BYTEA  NOT NULL,
    approvals       TEXT   NOT NULL,
    created_by      TEXT   NOT NULL,
    created_ms      BIGINT NOT NULL,
    certificate     BYTEA  NOT NULL,
    chain           BYTEA  NOT NULL,
    may_issue       BIGINT NOT NULL,
    may_sign_crls   BIGINT NOT NULL,
    alarm           TEXT   NOT NULL,
    revision        BIGINT NOT NULL,
    UNIQUE (tenant_id, name)
);

CREATE TABLE profiles (
    tenant_id       BYTEA  NOT NULL REFERENCES tenants (id),
    name            TEXT   NOT NULL,
    version         BIGINT NOT NULL,
    text            TEXT   NOT NULL,
    created_by      TEXT   NOT NULL,
    created_ms      BIGINT NOT NULL,
    retired_ms      BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, name, version)
);

-- `der` is the TBSCertificate while the state is 'intended', then the certificate.
CREATE TABLE certificates (
    issuer_id       BYTEA  NOT NULL REFERENCES issuers (id),
    serial          BYTEA  NOT NULL,
    tenant_id       BYTEA  NOT NULL,
    state           TEXT   NOT NULL,
    profile         TEXT   NOT NULL,
    profile_version BIGINT NOT NULL,
    der             BYTEA  NOT NULL,
    spki_sha256     BYTEA  NOT NULL,
    names           TEXT   NOT NULL,
    not_before_ms   BIGINT NOT NULL,
    not_after_ms    BIGINT NOT NULL,
    shard           BIGINT NOT NULL,
    requested_by    TEXT   NOT NULL,
    request_key     TEXT   NOT NULL,
    request_sha256  BYTEA  NOT NULL,
    lineage         BYTEA  NOT NULL,
    created_ms      BIGINT NOT NULL,
    revoked_ms      BIGINT NOT NULL,
    reason          BIGINT NOT NULL,
    invalidity_ms   BIGINT NOT NULL,
    status_epoch    BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (issuer_id, serial)
);

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
CREATE INDEX certificates_status ON certificates (status_epoch) WHERE status_epoch > 0;

CREATE TABLE certificate_names (
    tenant_id       BYTEA  NOT NULL,
    name            TEXT   NOT NULL,
    issuer_id       BYTEA  NOT NULL,
    serial          BYTEA  NOT NULL,
    PRIMARY KEY (tenant_id, name, issuer_id, serial)
);

CREATE TABLE blocked_keys (
    tenant_id       BYTEA  NOT NULL,
    spki_sha256     BYTEA  NOT NULL,
    why             TEXT   NOT NULL,
    created_ms      BIGINT NOT NULL,
    PRIMARY KEY (tenant_id, spki_sha256)
);

-- The newest CRL of each issuer and shard (0: the full one). `der` is empty when it came
-- from an embedded store: its bytes lie in a file.
CREATE TABLE crls (
    issuer_id       BYTEA  NOT NULL REFERENCES issuers (id),
    shard           BIGINT NOT NULL,
    number          BIGINT NOT NULL,
    this_update_ms  BIGINT NOT NULL,
    next_update_ms  BIGINT NOT NULL,
    entries         BIGINT NOT NULL,
    sha256          BYTEA  NOT NULL,
    der             BYTEA  NOT NULL DEFAULT '',
    PRIMARY KEY (issuer_id, shard)
);

-- Keys that sign OCSP answers, made in the HSM. The newest of an issuer is in use; its
-- certificate is empty until it has one. A row stays as long as its object.
CREATE TABLE responders (
    object_id       BYTEA  NOT NULL PRIMARY KEY,
    issuer_id       BYTEA  NOT NULL REFERENCES issuers (id),
    spec            TEXT   NOT NULL,
    proof           BYTEA  NOT NULL,
    token_serial    TEXT   NOT NULL,
    certificate     BYTEA  NOT NULL,
    created_ms      BIGINT NOT NULL
);

CREATE INDEX responders_issuer ON responders (issuer_id, created_ms);

-- ACME: who may come in, who came, and what they ask for.

-- `wrapped`: the MAC key under the appliance's own key in the HSM.
CREATE TABLE acme_keys (
    kid             TEXT   NOT NULL PRIMARY KEY,
    tenant_id       BYTEA  NOT NULL REFERENCES tenants (id),
    identity        TEXT   NOT NULL,
    profiles        TEXT   NOT NULL,
    wrapped         BYTEA  NOT NULL,
    created_by      TEXT   NOT NULL,
    created_ms      BIGINT NOT NULL
);

CREATE TABLE acme_accounts (
    id              TEXT   NOT NULL PRIMARY KEY,
    tenant_id       BYTEA  NOT NULL REFERENCES tenants (id),
    thumbprint      TEXT   NOT NULL,
    jwk             TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    contacts        TEXT   NOT NULL,
    kid             TEXT   NOT NULL REFERENCES acme_keys (kid),
    created_ms      BIGINT NOT NULL,
    UNIQUE (tenant_id, thumbprint)
);

-- `issuer_id` and `serial` are empty until there is a certificate, `failure` unless it was
-- refused for good; `replaces` is empty or issuer and serial of what the order replaces.
CREATE TABLE acme_orders (
    id              TEXT   NOT NULL PRIMARY KEY,
    account_id      TEXT   NOT NULL REFERENCES acme_accounts (id),
    profile         TEXT   NOT NULL,
    names           TEXT   NOT NULL,
    authorizations  TEXT   NOT NULL,
    issuer_id       BYTEA  NOT NULL,
    serial          BYTEA  NOT NULL,
    failure         TEXT   NOT NULL,
    replaces        BYTEA  NOT NULL,
    expires_ms      BIGINT NOT NULL,
    created_ms      BIGINT NOT NULL
);

CREATE INDEX acme_orders_account ON acme_orders (account_id, created_ms);
CREATE INDEX acme_orders_certificate ON acme_orders (issuer_id, serial);
CREATE INDEX acme_orders_replaces ON acme_orders (replaces) WHERE length(replaces) > 0;

-- `challenges`: JSON, one object for each way to show control.
CREATE TABLE acme_authorizations (
    id              TEXT   NOT NULL PRIMARY KEY,
    account_id      TEXT   NOT NULL REFERENCES acme_accounts (id),
    name            TEXT   NOT NULL,
    profile         TEXT   NOT NULL,
    status          TEXT   NOT NULL,
    challenges      TEXT   NOT NULL,
    expires_ms      BIGINT NOT NULL,
    revision        BIGINT NOT NULL
);

CREATE INDEX acme_authorizations_name ON acme_authorizations (account_id, name);

-- Jobs that move everything of a key off its old versions. `counts` and `census` are JSON;
-- `rate` and `ended_ms` are 0 for none. `lease` is the number of the newest lease and
-- never starts again.
CREATE TABLE jobs (
    id             BYTEA  NOT NULL PRIMARY KEY,
    tenant_id      BYTEA  NOT NULL REFERENCES tenants (id),
    key_id         BYTEA  NOT NULL REFERENCES keys (id),
    kind           TEXT   NOT NULL,
    subject        TEXT   NOT NULL,
    dry_run        BIGINT NOT NULL,
    target         BIGINT NOT NULL,
    state          TEXT   NOT NULL,
    not_before_ms  BIGINT NOT NULL,
    rate           BIGINT NOT NULL,
    counts         TEXT   NOT NULL,
    census         TEXT   NOT NULL,
    expected       BIGINT NOT NULL,
    steps          BIGINT NOT NULL,
    cursor         BYTEA  NOT NULL,
    lease          BIGINT NOT NULL,
    worker         TEXT   NOT NULL,
    lease_until_ms BIGINT NOT NULL,
    speed_milli    BIGINT NOT NULL,
    stepped_ms     BIGINT NOT NULL,
    created_by     TEXT   NOT NULL,
    created_ms     BIGINT NOT NULL,
    ended_ms       BIGINT NOT NULL,
    revision       BIGINT NOT NULL
);

-- One open job for each key and subject.
CREATE UNIQUE INDEX jobs_open ON jobs (key_id, subject) WHERE ended_ms = 0;
CREATE INDEX jobs_ended ON jobs (key_id, subject, ended_ms);
CREATE INDEX jobs_created ON jobs (tenant_id, created_ms, id);

-- Nodes that serve at the same time, and how far each has read. `epoch` of the cluster
-- grows with each change that nodes must know, `authorities` is that of the last change of
-- issuers, profiles and CRLs, `epoch` of a key and `status_epoch` of a certificate that of
-- its last change. Leases end by the clock of the database.
CREATE TABLE cluster (
    id             BIGINT NOT NULL PRIMARY KEY,
    epoch          BIGINT NOT NULL,
    authorities    BIGINT NOT NULL
);

CREATE TABLE nodes (
    id             BYTEA  NOT NULL PRIMARY KEY,
    name           TEXT   NOT NULL,
    log_id         BYTEA  NOT NULL,
    acknowledged   BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL
);
