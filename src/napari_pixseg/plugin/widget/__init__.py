"""The widget: thin views of the controller, the only modules that know Qt."""
