-- A MAC of each row that says who may do what, under a key that the HSM unwraps
-- (store/seal.rs). The seal of a key is also that of its versions.
ALTER TABLE tenants ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE keys ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE issuers ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE profiles ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE cluster ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
