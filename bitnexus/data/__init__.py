"""Data that the package ships; README.md beside this file says where it comes from and under which licence."""
