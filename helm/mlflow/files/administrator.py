"""Before the server starts: the administrator's password is the one that the Secret holds, whichever it was before."""

from mlflow.server.auth import auth_config, store

name, password = auth_config.admin_username, auth_config.admin_password
store.init_db(auth_config.database_uri)
if not store.has_user(name):
    print(f"{name} is not there yet; the server makes it")
elif store.authenticate_user(name, password):
    print(f"{name} has the password of the Secret")
else:
    store.update_user(name, password=password)
    print(f"{name} has got the password of the Secret")
