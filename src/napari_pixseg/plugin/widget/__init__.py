"""The widget: thin views of the controller."""
