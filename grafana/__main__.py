"""`python -m grafana`, from the repository: regenerate grafana/dashboards/*.json."""

from grafana.generate import write

write()
