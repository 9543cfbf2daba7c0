-- Publications of whole schemas need a superuser.
CREATE PUBLICATION zoo_schema FOR TABLES IN SCHEMA views, TABLE ONLY pubs.one;
