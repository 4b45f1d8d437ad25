"""From records to answers: by a checkpoint here, or by a server."""
