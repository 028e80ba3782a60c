"""What `import raypipe` offers: finished runs, and single images, without Ray."""
