"""The results of a run on one page that needs no network: charts, numbers and sample sessions."""
