"""From a request to executed notebooks: stage table, plan, execution, status and resume.

The workflow knows notebooks by name and never the physics inside them.
"""
