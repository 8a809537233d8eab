"""`python -m grafana`, from the repository: write grafana/dashboards/*.json anew."""

from grafana.generate import write

write()
