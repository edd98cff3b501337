# specs/*.spec by pg_isolation_regress, against a server with the embedded broker.
use strict;
use warnings;

use NexusKafka::PgRegress;

run_installcheck('ISOLATION');
