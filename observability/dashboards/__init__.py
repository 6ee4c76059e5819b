"""The seven dashboards, as code. `python -m observability.dashboards` writes what Grafana is given (observability/grafana/dashboards); a test compares the two.

Development only: nothing that runs imports this, since the SDK is no dependency of the product.
"""
