ALTER TABLE profiles RENAME COLUMN role TO user_role;
