"""The configuration's schema and its loading, with errors as file:line:column."""
