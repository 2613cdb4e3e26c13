/* What the system's resolver knows of a host. libcurl asks it, too, but does not pass on why there is no
 * answer: a name that does not exist will not exist in a minute, a name server that is silent may speak. */
#include "net/fetch_impl.h"
#include <netdb.h>

bool fetch_host_is_unknown(const char *host)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int rc = getaddrinfo(host, NULL, &hints, &found);

    if (!rc) freeaddrinfo(found);
#ifdef EAI_NODATA
    if (rc == EAI_NODATA) return true; /* it exists and has no address */
#endif
    return rc == EAI_NONAME;
}
