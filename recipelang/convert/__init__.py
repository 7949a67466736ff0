"""Translation between recipes and the configurations of other tools, one package a tool."""
