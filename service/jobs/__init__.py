"""Work that outlives the process: a durable queue, who works on it, and what is done there."""
