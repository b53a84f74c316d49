"""The threat models, one module each. A threat model is a list of attacks: here interventions are put together."""
