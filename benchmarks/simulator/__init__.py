"""A cluster and an object store in virtual time, in which raypipe's own driver and ledger code runs unmodified."""
