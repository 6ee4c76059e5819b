"""The microservices. They talk only through Kafka and the database, and do not know one another."""
