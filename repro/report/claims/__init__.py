"""The claims: `claims.toml` has their words and rules, the other modules measure and judge them."""
