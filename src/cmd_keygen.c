/* prima keygen: the cluster's key, made once and copied to every device. */
#include "net/key.h"
#include "src/base/log.h"
#include "src/cmd.h"
#include "src/options.h"
#include <string.h>

enum { PATH_BYTES = 4096 };

int cmd_keygen(int argc, char **argv, pr_err *err)
{
    const char *output = NULL;
    const opt table[] = {{"output", 'o', OPT_STRING, &output, "FILE", 0, 0,
                          "where the key goes (PRIMA_KEY_FILE, else ~/.config/prima/cluster.key)"},
                         {0}};
    const opt_spec spec = {
        "[-o FILE]",
        "Makes the key that the devices of a cluster know each other by. An existing file is "
        "never overwritten.",
        table, 0, 0};
    char path[PATH_BYTES];
    cluster_key key;
    int first, rc = options_parse(&spec, argc, argv, &first, err);

    if (rc) return rc == OPTIONS_HELP ? PR_OK : rc;
    if (output && !strcmp(output, "-"))
        return pr_fail(err, PR_EUSAGE, "--output -: a key goes into a file that only you can read");
    if ((rc = key_path(path, sizeof path, output, err)) || (rc = key_create(&key, path, err))) return rc;
    log_info("key %s is in %s", key.id, path);
    log_info("copy the file to every device of the cluster, for example: scp -p %s HOST:", path);
    key_clear(&key);
    return PR_OK;
}
