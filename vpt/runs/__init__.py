"""A whole run in one call: data, backbone, prompt, baselines, and the folder that it leaves."""
