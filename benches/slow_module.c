/* A PKCS#11 module that is another one, and sleeps in each C_Sign: a real HSM, as far as
 * waiting goes. SLOW_MODULE names the other one, SLOW_SIGN_US how long it sleeps.
 *
 * The function list of PKCS#11 2.40 (5.3) is a version, padded to a pointer, and 68
 * pointers; C_Sign is number 43 of them, counted from 0. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FUNCTIONS = 68, SIGN = 43 };

struct list {
    unsigned char version[sizeof(void *)];
    void *function[FUNCTIONS];
};

typedef unsigned long (*sign_fn)(unsigned long, unsigned char *, unsigned long,
                                 unsigned char *, unsigned long *);
typedef unsigned long (*get_fn)(struct list **);

static struct list own;
static sign_fn real_sign;
static useconds_t wait_us;

static unsigned long slow_sign(unsigned long session, unsigned char *data, unsigned long len,
                               unsigned char *signature, unsigned long *signature_len)
{
    usleep(wait_us);
    return real_sign(session, data, len, signature, signature_len);
}

unsigned long C_GetFunctionList(struct list **out)
{
    const char *path = getenv("SLOW_MODULE"), *us = getenv("SLOW_SIGN_US");
    void *module = path ? dlopen(path, RTLD_NOW) : NULL;
    get_fn get = module ? (get_fn)dlsym(module, "C_GetFunctionList") : NULL;
    struct list *real = NULL;
    if (!get || get(&real) != 0)
        return 5; /* CKR_GENERAL_ERROR */
    memcpy(&own, real, sizeof own);
    own.function[3] = (void *)C_GetFunctionList;
    real_sign = (sign_fn)real->function[SIGN];
    own.function[SIGN] = (void *)slow_sign;
    wait_us = us ? (useconds_t)atoi(us) : 1000;
    *out = &own;
    return 0;
}
