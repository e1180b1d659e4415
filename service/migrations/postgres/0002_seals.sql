-- A MAC of each row that says who may do what, under a key that the HSM unwraps
-- (store/seal.rs). The seal of a key is also that of its versions.
ALTER TABLE tenants ADD COLUMN seal BYTEA NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN seal BYTEA NOT NULL DEFAULT '';
ALTER TABLE issuers ADD COLUMN seal BYTEA NOT NULL DEFAULT '';
ALTER TABLE profiles ADD COLUMN seal BYTEA NOT NULL DEFAULT '';
ALTER TABLE cluster ADD COLUMN seal BYTEA NOT NULL DEFAULT '';
