"""Who asks: scopes and roles, API keys, tokens of an OpenID Connect issuer, rates."""
