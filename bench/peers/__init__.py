"""The applications that Sluice is compared with, each as its users would write it, and variants of Sluice itself."""
