"""fishlens.analysis: from Fisher curves to statements about transfer. Reads journals; never imports torch."""
