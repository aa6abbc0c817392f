-- Three roles for a project that syncs, none of them a superuser. Run it in the project's database as its superuser:
--
--     psql --dbname=morango --set=ON_ERROR_STOP=1 --single-transaction --file=grants.sql
--
-- once before the first `manage.py migrate`, and once after it, for the monitoring role can read only tables that
-- are there. It may run again at any moment. Passwords are yours: ALTER ROLE morango_application PASSWORD '...'.
--
-- Where the tables are there already, they get a new owner: stop the project, and give it the new roles afterwards.

DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['morango_migration', 'morango_application', 'morango_monitoring'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', wanted);
        END IF;
    END LOOP;
END $$;

-- The migration's role owns the tables: `migrate`, `create_sync_indexes`, `pg_dump`.

REVOKE CREATE ON SCHEMA public FROM PUBLIC; -- which has it before PostgreSQL 15
GRANT USAGE, CREATE ON SCHEMA public TO morango_migration;

DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relowner <> 'morango_migration'::regrole
    LOOP
        EXECUTE format('ALTER TABLE public.%I OWNER TO morango_migration', found.relname);
    END LOOP;
END $$;

-- The application's role: web processes, workers, and all other commands. It changes rows, and no table.

GRANT USAGE ON SCHEMA public TO morango_application;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO morango_application;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO morango_application;
ALTER DEFAULT PRIVILEGES FOR ROLE morango_migration IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO morango_application;
ALTER DEFAULT PRIVILEGES FOR ROLE morango_migration IN SCHEMA public
    GRANT USAGE ON SEQUENCES TO morango_application;

-- The monitoring role: `deserialize_status` and the metrics. It reads the ledger, and counts records. It can't read a
-- record's content; an error's text may quote a value of it.

GRANT USAGE ON SCHEMA public TO morango_monitoring;

DO $$
DECLARE
    found record;
BEGIN
    FOR found IN
        SELECT relname FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
            AND (relname ~ '^morango_celery_' OR relname = 'django_migrations')
            AND relname !~ '^morango_celery_(oplog|payloads)'
    LOOP
        EXECUTE format('GRANT SELECT ON public.%I TO morango_monitoring', found.relname);
    END LOOP;
    IF to_regclass('public.morango_store') IS NOT NULL THEN
        GRANT SELECT (
            id, profile, partition, model_name, _self_ref_fk, dirty_bit, deserialization_error, deserialization_exception
        ) ON public.morango_store TO morango_monitoring;
    END IF;
END $$;
